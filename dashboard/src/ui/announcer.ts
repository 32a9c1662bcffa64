// Tells the viewer of a new signal: a toast and the live region always, sound and a notification of
// the system when they are wanted.

import type { Signal } from "../data/types";
import { notify, playTone, signalDetail, signalTitle } from "./alerts";
import type { Preferences } from "./preferences";
import { createStore, type Store } from "./store";

export interface Toast {
  key: string;
  signal: Signal;
}

const TOASTS_MAX = 3;
const TOAST_MS = 8_000;

export class Announcer {
  readonly toasts = createStore<readonly Toast[]>([]);
  /** What screen readers are told. */
  readonly spoken = createStore("");

  constructor(
    private readonly preferences: Store<Preferences>,
    readonly open: (signal: Signal) => void,
  ) {}

  announce(signal: Signal): void {
    const { sound, notifications } = this.preferences.get();
    const toast = { key: `${signal.id}/${signal.revision}`, signal };
    this.toasts.set([...this.toasts.get(), toast].slice(-TOASTS_MAX));
    this.spoken.set(`New signal: ${signalTitle(signal)}, ${signalDetail(signal)}`);
    window.setTimeout(() => this.dismiss(toast.key), TOAST_MS);
    if (sound) playTone(signal.direction);
    if (notifications && document.hidden) notify(signal, () => this.open(signal));
  }

  dismiss(key: string): void {
    this.toasts.set(this.toasts.get().filter((toast) => toast.key !== key));
  }
}
