/** Encodes and decodes frames of serializer 2.0.0. Knows their shape, not what an event means. */

import { isObject } from "./json.js";

const BROADCAST_PUSH = 3;
const BROADCAST = 4;
const BYTES = 0;
const JSON_TEXT = 1;
const LONGEST = 255;

/**
 * Reads one frame.
 *
 * @param {string|ArrayBuffer} data
 * @returns {{joinRef: ?string, ref: ?string, topic: string, event: string, payload: object}}
 * @throws {SyntaxError} when it is not a frame of serializer 2.0.0.
 */
export function decodeFrame(data) {
  return typeof data === "string" ? decodeText(data) : decodeBroadcast(new Uint8Array(data));
}

function decodeText(data) {
  const parts = JSON.parse(data);
  if (!Array.isArray(parts) || parts.length !== 5) throw new SyntaxError("not a frame of five");
  const [joinRef, ref, topic, event, payload] = parts;
  if (typeof topic !== "string" || typeof event !== "string") {
    throw new SyntaxError("a frame without topic and event");
  }
  if (payload !== null && !isObject(payload)) throw new SyntaxError("a payload that is no object");
  return { joinRef, ref, topic, event, payload: payload ?? {} };
}

function decodeBroadcast(bytes) {
  if (bytes.length < 5 || bytes[0] !== BROADCAST) {
    throw new SyntaxError("not a broadcast frame (kind 4)");
  }
  const [, topicSize, eventSize, metaSize, encoding] = bytes;
  if (5 + topicSize + eventSize + metaSize > bytes.length) {
    throw new SyntaxError("a frame that ends before its parts do");
  }
  if (encoding !== BYTES && encoding !== JSON_TEXT) {
    throw new SyntaxError(`a broadcast of unknown encoding ${encoding}`);
  }
  let offset = 5;
  const take = (size) => textOf(bytes.subarray(offset, (offset += size)));
  const topic = take(topicSize);
  const event = take(eventSize);
  const meta = take(metaSize);
  const rest = bytes.slice(offset);
  const payload = {
    type: "broadcast",
    event,
    payload: encoding === JSON_TEXT ? JSON.parse(textOf(rest)) : rest.buffer,
  };
  if (meta) {
    payload.meta = JSON.parse(meta);
    if (!isObject(payload.meta)) throw new SyntaxError("metadata that is no object");
  }
  return { joinRef: null, ref: null, topic, event: "broadcast", payload };
}

function textOf(bytes) {
  try {
    // Without ignoreBOM a decoder drops U+FEFF from the start of a name.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new SyntaxError("a frame that is not UTF-8");
  }
}

/** @returns {string} The text frame of a message. */
export function encodeFrame(joinRef, ref, topic, event, payload) {
  return JSON.stringify([joinRef, ref, topic, event, payload]);
}

/**
 * The binary frame (kind 3) of a broadcast of bytes.
 *
 * @param {string} joinRef
 * @param {string} ref
 * @param {string} topic
 * @param {string} event
 * @param {ArrayBuffer|ArrayBufferView} data
 * @returns {Uint8Array}
 * @throws {TypeError} when a name is longer than such a frame can carry.
 */
export function encodeBytes(joinRef, ref, topic, event, data) {
  const encoder = new TextEncoder();
  const names = [joinRef, ref, topic, event].map((name) => encoder.encode(name));
  if (names[2].length > LONGEST) throw new TypeError(`a topic of more than ${LONGEST} bytes`);
  if (names[3].length > LONGEST) throw new TypeError(`an event name of more than ${LONGEST} bytes`);
  const parts = [
    [BROADCAST_PUSH, ...names.map((name) => name.length), 0, BYTES],
    ...names,
    bytesOf(data),
  ];
  const frame = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    frame.set(part, offset);
    offset += part.length;
  }
  return frame;
}

/** @returns {boolean} Whether a payload is bytes rather than something JSON. */
export function isBytes(value) {
  return ArrayBuffer.isView(value) || Object.prototype.toString.call(value) === "[object ArrayBuffer]";
}

/** The bytes of a payload: of a view only its part of the buffer. */
function bytesOf(data) {
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
}
