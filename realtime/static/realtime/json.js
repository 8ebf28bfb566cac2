/** Comparing values of JSON. */

/** @returns {boolean} Whether a value is an object in the sense of JSON. */
export function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** @returns {boolean} Whether two values are equal; the order of keys does not count. */
export function equal(a, b) {
  if (a === b) return true;
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const names = Object.keys(a);
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => Object.hasOwn(b, name) && equal(a[name], b[name]))
  );
}
