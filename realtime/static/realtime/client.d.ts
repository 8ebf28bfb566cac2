/** Types of client.js. What each thing does is said there and in the documentation. */

import type { Change, Collection, CollectionOptions, Row } from "./collection.js";

export { Collection, RefusedError, rest, Write } from "./collection.js";
export type {
  Change,
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

export interface ConnectOptions {
  /** JWT sent with every join. Without one, the server uses the session. */
  token?: string;
  /** Asked before each connection, with each heartbeat, and when a channel was refused or closed. */
  getToken?: () => string | null | undefined | Promise<string | null | undefined>;
  /** Extra query parameters, for example `{apikey: "…"}`. */
  params?: Record<string, string>;
  /** Constructor to use where there is no global one. */
  WebSocket?: new (url: string) => any;
  /** Source of jitter, 0 ≤ x < 1. Default `Math.random`. */
  random?: () => number;
}

/** The status of a connection. */
export interface Status {
  status: "connecting" | "open" | "closed";
  /** Close code, when the server or the network closed the connection. */
  code?: number;
  reason?: string;
  /** Milliseconds until the next attempt; absent after `close()`. */
  retryInMs?: number;
}

export interface ChannelOptions {
  private?: boolean;
  self?: boolean;
  ack?: boolean;
  replay?: { since: number | Date; limit?: number };
  presenceKey?: string;
  resume?: boolean;
}

export type ChannelStatus =
  | "idle"
  | "joining"
  | "catching up"
  | "live"
  | "resynced"
  | "errored"
  | "closed";

export interface SubscribeOptions {
  since?: string | number | null;
  onResync?: () => void | Promise<void>;
}

export interface ChangesConfig {
  /** Default "*". */
  event?: "INSERT" | "UPDATE" | "DELETE" | "*";
  schema: string;
  table?: string;
  filter?: string;
  select?: readonly string[];
  since?: string | number;
  snapshot?: boolean | { limit: number };
  live?: boolean;
  [more: string]: unknown;
}

export interface Broadcast<P = any> {
  type: "broadcast";
  event: string;
  payload: P;
  meta?: { id?: string; replayed?: boolean; user_id?: string; [more: string]: unknown };
}

/** What one connection tracked, and the server's ref for it. */
export type Meta<T extends object = Row> = T & { presence_ref: string; phx_user_id?: string };

export interface PresenceReport<T extends object = Row> {
  event: "sync" | "join" | "leave";
  key?: string;
  currentPresences?: Meta<T>[];
  newPresences?: Meta<T>[];
  leftPresences?: Meta<T>[];
}

/** A message of the server about a channel. */
export interface SystemMessage {
  status: "ok" | "error";
  extension: string;
  message: string;
  channel: string;
  hint?: string;
  seq?: number;
  count?: number;
  /** Of "snapshot begins": the primary keys of the tables that the bindings name. */
  keys?: { schema: string; table: string; columns: string[] }[];
}

/** A topic on a connection. */
export declare class Channel {
  private constructor();
  get isPrivate(): boolean;
  get status(): ChannelStatus;
  /** "<epoch>:<seq>", or null. */
  get cursor(): string | null;
  on<R extends object = Row>(
    type: "postgres_changes",
    config: ChangesConfig,
    callback: (change: Change<R>) => void,
  ): this;
  on<P = any>(
    type: "broadcast",
    config: { event?: string },
    callback: (message: Broadcast<P>) => void,
  ): this;
  on<T extends object = Row>(
    type: "presence",
    config: { event?: "sync" | "join" | "leave" | "*" },
    callback: (report: PresenceReport<T>) => void,
  ): this;
  on(type: "system", config: object, callback: (message: SystemMessage) => void): this;
  subscribe(
    callback?: (status: ChannelStatus, error?: Error) => void,
    options?: SubscribeOptions,
  ): this;
  unsubscribe(): void;
  /** Anything JSON, or bytes. */
  send(event: string, payload?: unknown): Promise<Record<string, unknown>>;
  track(meta: object): Promise<void>;
  untrack(): Promise<void>;
  presenceState<T extends object = Row>(): Record<string, Meta<T>[]>;
}

/** One connection and its channels. */
export declare class Client {
  constructor(url: string, options: ConnectOptions);
  get status(): Status;
  /** Returns what stops listening. */
  on(type: "status", callback: (status: Status) => void): () => void;
  on(type: "error", callback: (error: Error) => void): () => void;
  channel(name: string, options?: ChannelOptions): Channel;
  collection<R extends object = Row>(table: string, options?: CollectionOptions<R>): Collection<R>;
  setToken(token: string | null): void;
  close(): void;
}

export declare function connect(url: string, options?: ConnectOptions): Client;

export interface Frame {
  joinRef: string | null;
  ref: string | null;
  topic: string;
  event: string;
  payload: any;
}

/** Reads a frame of serializer 2.0.0. */
export declare function decodeFrame(data: string | ArrayBuffer): Frame;
