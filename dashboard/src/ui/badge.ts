// What the connection badge says, as a pure state machine.
//
// The worst news wins: no connection, then a closed market, then silence where ticks are due. Only
// when all is well does it say LIVE, or SIMULATED when the prices are not the market's. A simulated
// source is named in every state. Entering and leaving DELAYED have different thresholds, so that
// the badge does not flicker at a slow moment.

export type BadgeKind =
  | "connecting"
  | "live"
  | "delayed"
  | "simulated"
  | "reconnecting"
  | "closed";

export type Tone = "good" | "warn" | "bad" | "calm";

export interface BadgeInput {
  connected: boolean;
  /** Whether there has ever been a connection on this page. */
  wasConnected: boolean;
  simulated: boolean;
  speed: number;
  phase: "pre" | "regular" | "post" | "closed" | null;
  /** Broker time since the newest tick of any ticker; null before the first one. */
  tickAgeMs: number | null;
}

export interface Badge {
  kind: BadgeKind;
  label: string;
  tone: Tone;
  /** Whether SIMULATED must stand beside the label because the label does not say it. */
  alsoSimulated: boolean;
}

// Outside the regular session minutes without a trade are nothing unusual.
const DELAYED_FROM_MS = { regular: 10_000, extended: 120_000 };
const DELAYED_UNTIL_MS = { regular: 5_000, extended: 60_000 };

/** The factor as people write it: 1×, 2.5×, 150×. */
export function speedText(speed: number): string {
  const rounded = speed >= 10 ? Math.round(speed) : Math.round(speed * 10) / 10;
  return `${rounded}×`;
}

function isDelayed(previous: BadgeKind | null, input: BadgeInput): boolean {
  if (input.tickAgeMs === null) return false;
  const limits = previous === "delayed" ? DELAYED_UNTIL_MS : DELAYED_FROM_MS;
  const limitMs = input.phase === "regular" ? limits.regular : limits.extended;
  return input.tickAgeMs / Math.max(1, input.speed) > limitMs;
}

export function nextBadge(previous: BadgeKind | null, input: BadgeInput): Badge {
  const alsoSimulated = input.simulated;
  if (!input.connected) {
    return input.wasConnected
      ? { kind: "reconnecting", label: "RECONNECTING", tone: "bad", alsoSimulated }
      : { kind: "connecting", label: "CONNECTING", tone: "calm", alsoSimulated };
  }
  if (input.phase === "closed") {
    return { kind: "closed", label: "MARKET CLOSED", tone: "calm", alsoSimulated };
  }
  if (isDelayed(previous, input)) {
    const seconds = Math.floor((input.tickAgeMs ?? 0) / Math.max(1, input.speed) / 1000);
    return { kind: "delayed", label: `DELAYED ${seconds} s`, tone: "warn", alsoSimulated };
  }
  if (input.simulated) {
    const label = `SIMULATED ${speedText(input.speed)}`;
    return { kind: "simulated", label, tone: "warn", alsoSimulated: false };
  }
  return { kind: "live", label: "LIVE", tone: "good", alsoSimulated: false };
}

/** An age in as few characters as it needs: 0.4 s, 12 s, 3 min, 2 h, 4 d. */
export function ageText(ageMs: number | null): string {
  if (ageMs === null) return "–";
  const seconds = Math.max(0, ageMs) / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
