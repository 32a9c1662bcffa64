// How a new signal makes itself heard beyond the page: two short tones, a system notification.
// Both are off until the viewer turns them on.

import { formatTime } from "../data/newyork";
import type { Signal } from "../data/types";
import { priceText } from "./format";

const TONE_S = 0.14;
let audio: AudioContext | null = null;

/** Rising for up, falling for down. */
export function playTone(direction: Signal["direction"]): void {
  audio ??= new AudioContext();
  void audio.resume();
  const tones = direction === "up" ? [587, 880] : [587, 392];
  tones.forEach((hertz, index) => tone(audio as AudioContext, hertz, index * TONE_S));
}

function tone(context: AudioContext, hertz: number, afterS: number): void {
  const start = context.currentTime + afterS;
  const oscillator = new OscillatorNode(context, { type: "sine", frequency: hertz });
  const gain = new GainNode(context, { gain: 0 });
  gain.gain.linearRampToValueAtTime(0.12, start + 0.01);
  gain.gain.exponentialRampToValueAtTime(0.001, start + TONE_S);
  oscillator.connect(gain).connect(context.destination);
  oscillator.start(start);
  oscillator.stop(start + TONE_S);
}

/** Asks the viewer; says whether notifications may be shown. */
export async function askForNotifications(): Promise<boolean> {
  if (!("Notification" in window)) return false;
  if (Notification.permission === "granted") return true;
  return (await Notification.requestPermission()) === "granted";
}

export function signalTitle(signal: Signal): string {
  return `${signal.ticker} ${signal.direction} cross ${priceText(signal.price)}`;
}

export function signalDetail(signal: Signal): string {
  const side = signal.direction === "up" ? "above" : "below";
  return `SMA9 ${side} VWAP · ${signal.timeframe} · ${formatTime(signal.ts_ms, "minute")} ET`;
}

export function notify(signal: Signal, onClick: () => void): void {
  if (!("Notification" in window) || Notification.permission !== "granted") return;
  try {
    const options = { body: signalDetail(signal), tag: signal.id, icon: "./icon.svg" };
    const shown = new Notification(signalTitle(signal), options);
    shown.onclick = () => {
      window.focus();
      onClick();
      shown.close();
    };
  } catch (error) {
    // Browsers of phones offer the name but only let service workers use it: the toast remains.
    console.info("no system notification here", error);
  }
}
