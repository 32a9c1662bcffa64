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

function spokenText(signal: Signal): string {
  return `New signal: ${signalTitle(signal)}, ${signalDetail(signal)}`;
}

export class Announcer {
  readonly toasts = createStore<readonly Toast[]>([]);
  /** What screen readers are told. */
  readonly spoken = createStore("");

  constructor(
    private readonly preferences: Store<Preferences>,
    readonly open: (signal: Signal) => void,
  ) {}

  /** Tells of signals that came at the same time. */
  announce(signals: readonly Signal[]): void {
    const [newest] = signals.slice(-1);
    if (newest === undefined) return;
    const { sound, notifications } = this.preferences.get();
    const toasts = signals.map((signal) => ({ key: `${signal.id}/${signal.revision}`, signal }));
    this.toasts.set([...this.toasts.get(), ...toasts].slice(-TOASTS_MAX));
    this.spoken.set(signals.map(spokenText).join(". "));
    for (const { key } of toasts) window.setTimeout(() => this.dismiss(key), TOAST_MS);
    if (sound) playTone(newest.direction);
    if (!notifications || !document.hidden) return;
    for (const signal of signals) notify(signal, () => this.open(signal));
  }

  dismiss(key: string): void {
    this.toasts.set(this.toasts.get().filter((toast) => toast.key !== key));
  }
}
