/** Calls of the page's callbacks. */

/** Calls a callback. An exception is reported and stops nothing else. */
export function call(callback, ...args) {
  try {
    callback(...args);
  } catch (error) {
    report(error);
  }
}

/** Reports an error as the browser reports an uncaught one. */
export function report(error) {
  (globalThis.reportError ?? console.error)(error);
}
