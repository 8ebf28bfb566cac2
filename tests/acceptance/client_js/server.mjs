/** A server of one socket, played by the test: what the client sent, and what it is answered. */

import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

export const URL_ = "ws://server.test/realtime";

/** A stand-in for WebSocket that remembers every instance made of it. */
export function fakeWebSocket() {
  return class FakeSocket {
    static made = [];
    static get last() {
      return this.made.at(-1);
    }

    sent = [];
    sentBytes = [];
    closed = false;
    readyState = 0;
    bufferedAmount = 0;

    constructor(url) {
      this.url = url;
      this.constructor.made.push(this);
    }

    send(frame) {
      if (typeof frame === "string") this.sent.push(JSON.parse(frame));
      else this.sentBytes.push(frame);
    }

    close() {
      this.closed = true;
      this.readyState = 3;
    }

    /** The handshake succeeds. */
    accept() {
      this.readyState = 1;
      this.onopen({});
      return this;
    }

    /** The server, or the network, ends the connection. */
    drop(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose({ code, reason });
    }

    receive(...frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }

    receiveBytes(bytes) {
      this.onmessage({ data: Uint8Array.from(bytes).buffer });
    }

    /** The frames of one event that the client sent on this socket. */
    of(event) {
      return this.sent.filter((frame) => frame[3] === event);
    }

    /** The latest join of a topic. */
    join(topic = "realtime:room") {
      return this.of("phx_join")
        .filter((frame) => frame[2] === topic)
        .at(-1);
    }

    /** The bindings of the latest join. */
    asked(topic) {
      return this.join(topic)[4].config.postgres_changes;
    }

    /**
     * Answers the latest join as the server does: each binding echoed, with an id, the head, and the
     * mark of the subject; `{}` is the head of a server that keeps no log.
     */
    grant({ topic = "realtime:room", firstId = 1, head = { epoch: "e1", seq: 10 }, confirm = true, subject } = {}) {
      const [joinRef, ref, , , payload] = this.join(topic);
      const bindings = payload.config.postgres_changes.map((b, i) => ({ id: firstId + i, ...b }));
      const response = { postgres_changes: bindings, ...head, subject };
      this.receive(joinRef, ref, topic, "phx_reply", { status: "ok", response });
      if (confirm && bindings.length) this.tell("postgres_changes", "Subscribed to PostgreSQL", {}, topic);
      return joinRef;
    }

    /** A `system` message to a channel, of status ok. */
    tell(extension, message, more = {}, topic = "realtime:room") {
      const payload = { status: "ok", extension, message, channel: topic.slice(9), ...more };
      this.receive(this.join(topic)[0], null, topic, "system", payload);
    }

    /** A `system` message to a channel, of status error. */
    complain(extension, message, more = {}, topic = "realtime:room") {
      this.tell(extension, message, { ...more, status: "error" }, topic);
    }

    /** Answers the heartbeat that waits; `{}` is the answer while the server replays. */
    pulse(head = {}) {
      const reply = { status: "ok", response: head };
      this.receive(null, this.of("heartbeat").at(-1)[1], "phoenix", "phx_reply", reply);
    }

    /** Answers what the client asked last by an event of this name. */
    answer(event, status = "ok", response = {}) {
      const [joinRef, ref, topic] = this.of(event).at(-1);
      this.receive(joinRef, ref, topic, "phx_reply", { status, response });
    }

    refuse(reason, topic = "realtime:room") {
      const [joinRef, ref] = this.of("phx_join").at(-1);
      this.receive(joinRef, ref, topic, "phx_reply", { status: "error", response: { reason } });
    }

    change(ids, data, topic = "realtime:room") {
      this.receive(null, null, topic, "postgres_changes", { ids, data });
    }
  };
}

/** Lets promises settle: the client awaits `getToken` before it connects. */
export async function settle() {
  for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
}

/**
 * The client as browsers load it. Node takes a `.js` file for CommonJS unless a package.json says
 * otherwise, and a package.json has no place among static files: so a copy of them is loaded.
 */
export async function loadClient(module = "client.js") {
  const folder = await mkdtemp(join(tmpdir(), "client-js-"));
  try {
    await cp(new URL("../../../realtime/static/realtime/", import.meta.url), folder, { recursive: true });
    await writeFile(join(folder, "package.json"), '{"type": "module"}');
    return await import(pathToFileURL(join(folder, module)));
  } finally {
    await rm(folder, { recursive: true });
  }
}
