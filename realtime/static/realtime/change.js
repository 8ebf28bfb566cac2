/** A change of a row, as the page gets it. */

/**
 * @typedef {object} Change
 * @property {"INSERT"|"UPDATE"|"DELETE"} eventType
 * @property {string} schema
 * @property {string} table
 * @property {Record<string, unknown>} new The row after the change; `{}` for a DELETE.
 * @property {Record<string, unknown>} old What may be known of the row before; `{}` for an INSERT.
 * @property {string} commit_timestamp ISO 8601, microseconds, UTC; unique and rising.
 * @property {number|undefined} seq Place in the server's log, rising.
 * @property {number[]} ids Ids of the bindings of this channel that the change matches.
 * @property {{name: string, type: string}[]} columns
 * @property {string[]|null} errors
 * @property {string|null} tx The receipt of the transaction that made the change, where this page's user
 *   wrote it and took one.
 * @property {boolean} snapshot True for a row that was there before the subscription.
 */

/**
 * @param {number[]} ids
 * @param {object} data Of the wire.
 * @returns {Change}
 */
export function changeOf(ids, data) {
  return {
    eventType: data.type,
    schema: data.schema,
    table: data.table,
    new: data.record ?? {},
    old: data.old_record ?? {},
    commit_timestamp: data.commit_timestamp,
    seq: data.seq,
    ids,
    columns: data.columns ?? [],
    errors: data.errors ?? null,
    tx: data.tx ?? null,
    snapshot: data.snapshot === true,
  };
}
