/** Types of rows.js. What each thing does is said there and in the documentation. */

import type { Collection, CollectionOptions, Row } from "./collection.js";

export { Collection, RefusedError, rest, Write } from "./collection.js";
export type {
  CollectionBatch,
  CollectionOptions,
  CollectionStatus,
  Key,
  RestOptions,
  Row,
  RowChange,
  StreamChange,
  Writes,
  Written,
} from "./collection.js";

/** What `rows` needs of a client of supabase-js or realtime-js. */
export interface ClientLike {
  channel(name: string, options?: any): ChannelLike;
  removeChannel(channel: any): unknown;
}

/** What `rows` needs of a channel of theirs. */
export interface ChannelLike {
  on(type: any, filter: any, callback: (payload: any) => void): unknown;
  subscribe(callback?: (status: any, error?: Error) => void): unknown;
  unsubscribe(): unknown;
}

/** A filter, or a filter builder of the client. */
export type RowsOptions<R extends object = Row> = Omit<CollectionOptions<R>, "filter"> & {
  filter?: string | { build(): string };
};

export declare function rows<R extends object = Row>(
  source: ClientLike,
  table: string,
  options?: RowsOptions<R>,
): Collection<R>;
export declare function rows<R extends object = Row>(
  source: ChannelLike,
  table: string,
  options?: Omit<RowsOptions<R>, "topic" | "private">,
): Collection<R>;
