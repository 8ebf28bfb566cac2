/** Calling what the page gave us. */

/** Calls a page's callback; what it throws is reported and stops nothing else. */
export function call(callback, ...args) {
  try {
    callback(...args);
  } catch (error) {
    report(error);
  }
}

/** Tells of a fault as if nobody had caught it. */
export function report(error) {
  (globalThis.reportError ?? console.error)(error);
}
