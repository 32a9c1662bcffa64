/**
 * The WebSocket to the gateway: opens it, keeps it open, and tells when it is silent.
 *
 * After a break it connects again with growing, jittered waits. A socket without a message for 12 s
 * counts as broken: heartbeats come every 5 s, so it would have had two.
 */

import { backoffMs } from "./backoff";
import type { LiveMessage } from "./types";

const SILENCE_MS = 12_000;
/** The gateway's word for "you said too much" or "you logged out": come again, but not soon. */
const CLOSE_POLICY = 1008;
const UNWELCOME_ATTEMPT = 10;

export interface SocketLike {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

export interface SocketParts {
  /** Opens a socket; may first have to fetch a token, so it may wait, and may fail. */
  connect(): Promise<SocketLike>;
  now(): number;
  random(): number;
  later(callback: () => void, ms: number): () => void;
}

export interface SocketEvents {
  onOpen(): void;
  onMessage(message: LiveMessage): void;
  onPhase(
    phase: "connecting" | "open" | "reconnecting" | "closed",
    retryAtMs: number | null,
  ): void;
}

export class LiveSocket {
  private readonly parts: SocketParts;
  private readonly events: SocketEvents;
  private socket: SocketLike | null = null;
  private attempt = 0;
  private stopped = false;
  private cancelRetry: (() => void) | null = null;
  private cancelWatch: (() => void) | null = null;
  /** Which attempt is the present one; what a forgotten one still says does not count. */
  private generation = 0;
  lastMessageMs: number | null = null;

  constructor(parts: SocketParts, events: SocketEvents) {
    this.parts = parts;
    this.events = events;
  }

  get open(): boolean {
    return this.socket !== null;
  }

  start(): void {
    if (this.stopped || this.socket !== null) return;
    this.cancelRetry?.();
    this.cancelRetry = null;
    this.generation += 1;
    const generation = this.generation;
    this.events.onPhase(this.attempt === 0 ? "connecting" : "reconnecting", null);
    this.parts.connect().then(
      (socket) => {
        if (this.stopped || generation !== this.generation) socket.close(1000);
        else this.take(socket, generation);
      },
      () => {
        if (generation === this.generation) this.broken(null);
      },
    );
  }

  send(message: object): void {
    this.socket?.send(JSON.stringify(message));
  }

  stop(): void {
    this.stopped = true;
    this.drop();
    this.cancelRetry?.();
    this.events.onPhase("closed", null);
  }

  /** Lets go of the connection until somebody asks for it again. */
  pause(): void {
    this.drop();
    this.cancelRetry?.();
    this.cancelRetry = null;
    this.attempt = 0;
    this.events.onPhase("connecting", null);
  }

  /** The user asks, or the machine is back on the net: no more waiting. */
  retryNow(): void {
    if (this.stopped || this.socket !== null) return;
    this.attempt = Math.max(this.attempt, 1);
    this.start();
  }

  private take(socket: SocketLike, generation: number): void {
    const current = (): boolean => generation === this.generation && !this.stopped;
    socket.onopen = () => {
      if (!current()) {
        socket.close(1000); // Opened after somebody had lost patience with it.
        return;
      }
      this.socket = socket;
      this.heard();
      this.events.onPhase("open", null);
      this.events.onOpen();
    };
    socket.onmessage = (event) => {
      if (!current() || typeof event.data !== "string") return;
      this.heard();
      // Only now: a server that accepts and closes at once must not be hammered.
      this.attempt = 0;
      this.events.onMessage(JSON.parse(event.data) as LiveMessage);
    };
    socket.onclose = (event) => {
      if (current()) this.broken(event.code);
    };
    // A socket that never opens is as dead as a silent one.
    this.watch(socket, generation);
  }

  private heard(): void {
    this.lastMessageMs = this.parts.now();
  }

  private watch(socket: SocketLike, generation: number): void {
    const since = this.parts.now();
    const look = (): void => {
      if (generation !== this.generation) return;
      const silent = this.parts.now() - Math.max(this.lastMessageMs ?? 0, since);
      if (silent < SILENCE_MS) {
        this.cancelWatch = this.parts.later(look, SILENCE_MS - silent + 50);
        return;
      }
      socket.close(4000);
      this.broken(null);
    };
    this.cancelWatch = this.parts.later(look, SILENCE_MS);
  }

  private drop(): void {
    this.generation += 1;
    this.cancelWatch?.();
    this.cancelWatch = null;
    this.socket?.close(1000);
    this.socket = null;
  }

  private broken(code: number | null): void {
    this.socket = null;
    this.drop();
    if (this.stopped) return;
    if (code === CLOSE_POLICY) this.attempt = Math.max(this.attempt, UNWELCOME_ATTEMPT);
    const waitMs = backoffMs(this.attempt, this.parts.random());
    this.attempt += 1;
    this.events.onPhase("reconnecting", this.parts.now() + waitMs);
    this.cancelRetry = this.parts.later(() => this.start(), waitMs);
  }
}
