/** Types of collection.js. What each thing does is said there and in the documentation. */

/** A row, by the names of its columns. */
export type Row = Record<string, any>;

/** A primary key: the value of its column, or of several an array of them or an object with them. */
export type Key = string | number | boolean | readonly unknown[] | Readonly<Row>;

export interface Change<R extends object = Row> {
  eventType: "INSERT" | "UPDATE" | "DELETE";
  schema: string;
  table: string;
  /** The row after the change; `{}` for a DELETE. */
  new: Partial<R>;
  /** What may be known of the row before; `{}` for an INSERT. */
  old: Partial<R>;
  /** ISO 8601, microseconds, UTC; unique and rising. */
  commit_timestamp: string;
  /** Place in the server's log, rising. */
  seq: number | undefined;
  /** Ids of the bindings of the channel that the change matches. */
  ids: number[];
  columns: { name: string; type: string }[];
  errors: string[] | null;
  /** The receipt of the transaction, where this page's user wrote it and took one. */
  tx: string | null;
  /** True for a row that was there before the subscription. */
  snapshot: boolean;
}

/** A change as rows.js gets it, and what more client.js knows of it. */
export type StreamChange<R extends object = Row> = Omit<Change<R>, "seq" | "ids" | "columns" | "snapshot"> &
  Partial<Change<R>>;

export interface CollectionOptions<R extends object = Row> {
  /** As in a binding of changes: "status=eq.open". Default: every row. */
  filter?: string;
  /** Default "public". */
  schema?: string;
  /** The columns to get; the primary key always comes. */
  select?: readonly string[];
  /** The columns of the primary key. Default: those that the server names. */
  key?: string | readonly string[];
  /** A column, or several, each with "-" before it to begin with the largest; or a comparison. */
  order?: string | readonly string[] | ((a: R, b: R) => number);
  /** Rows that the page has already, shown until the server has sent its own. */
  initial?: readonly R[];
  /** Called with each change of the stream as it arrives, before it is shown. */
  onChange?: (change: StreamChange<R>) => void;
  /** How `insert`, `update` and `delete` write where a call says nothing else. */
  writes?: Writes<R>;
  /** Name of the channel, which is the collection's alone. Default: one of its own. */
  topic?: string;
  /** Whether the topic's policies are asked. */
  private?: boolean;
}

export type CollectionStatus = "joining" | "catching up" | "live" | "errored" | "closed";

/** A row that came (no `before`), changed, or went (no `after`). */
export interface RowChange<R extends object = Row> {
  key: any;
  before: R | undefined;
  after: R | undefined;
  /** What this page wrote, shown or corrected by the server. */
  own?: true;
}

/** What a function that writes returns: a Response, or what has headers like one, or a receipt. */
export type Written = unknown;

/** How a collection writes rows. */
export interface Writes<R extends object = Row> {
  insert?: (row: Partial<R>) => Written;
  update?: (key: any, changes: Partial<R>) => Written;
  delete?: (key: any) => Written;
}

export interface RestOptions {
  /** More headers; a function is asked before each request. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** Milliseconds after which a request without an answer is given up. Default 30,000. */
  timeout?: number;
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

/** `POST url`, `PATCH url<key>/`, `DELETE url<key>/`. */
export declare function rest<R extends object = Row>(url: string, options?: RestOptions): Writes<R>;

/** What a server answered that did not take a write. */
export declare class RefusedError extends Error {
  constructor(response: Response);
  /** Its body has not been read. */
  get response(): Response;
  get status(): number;
}

/** A write of this page. */
export declare class Write {
  private constructor();
  /** Of the row: of one whose key the server makes, that as soon as it is known. */
  get key(): any;
  get status(): "sending" | "taken" | "confirmed" | "refused";
  /** The receipts of its transactions, once the server has given them. */
  get receipts(): string[];
  /** What the function that wrote gave back; rejected when it is refused. */
  get taken(): Promise<any>;
  /** Whether the stream has shown it; rejected when it is refused. */
  get confirmed(): Promise<boolean>;
}

/** What a listener is told, once for all that came together. */
export interface CollectionBatch<R extends object = Row> {
  /** None where only the status is another. */
  changes: RowChange<R>[];
  /** Whether they are the difference to a set of rows that the server sent anew. */
  snapshot: boolean;
  status: CollectionStatus;
}

/** A keyed set of rows that a stream keeps exact. */
export declare class Collection<R extends object = Row> implements Iterable<R> {
  private constructor();
  get table(): string;
  get status(): CollectionStatus;
  /** Why the status is "errored", or "closed" by the server; else null. */
  get error(): Error | null;
  /** Whether the server sent only a part of the rows, because they are too many. */
  get truncated(): boolean;
  get size(): number;
  /** In order. The same array until rows change. */
  get rows(): readonly R[];
  get(key: Key): R | undefined;
  has(key: Key): boolean;
  keys(): IterableIterator<any>;
  entries(): IterableIterator<[key: any, row: R]>;
  [Symbol.iterator](): IterableIterator<R>;
  /** The same as `rows`; needs no `this`. */
  getRows(): readonly R[];
  /** The same as `status`; needs no `this`. */
  getStatus(): CollectionStatus;
  /** Shown at once, and taken back when it is refused. */
  insert(row: Partial<R>, write?: ((row: Partial<R>) => Written) | null): Write;
  update(key: Key, changes: Partial<R>, write?: ((key: any, changes: Partial<R>) => Written) | null): Write;
  delete(key: Key, write?: ((key: any) => Written) | null): Write;
  /** Whether a row is shown as this page wrote it. */
  isPending(key: Key): boolean;
  /** Whether the collection has shown a change of this transaction in time (milliseconds). */
  awaitTx(tx: string, timeout?: number): Promise<boolean>;
  /** Returns what removes the listener; needs no `this`. */
  subscribe(listener: (batch: CollectionBatch<R>) => void): () => void;
  close(): void;
}
