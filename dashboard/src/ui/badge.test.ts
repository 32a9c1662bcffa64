import { describe, expect, it } from "vitest";

import { ageText, type BadgeInput, nextBadge, speedText } from "./badge";

const WELL: BadgeInput = {
  connected: true,
  wasConnected: true,
  simulated: false,
  speed: 1,
  phase: "regular",
  tickAgeMs: 400,
};

const label = (change: Partial<BadgeInput>): string => nextBadge(null, { ...WELL, ...change }).label;

describe("the badge", () => {
  it("says LIVE only when everything is well", () => {
    expect(label({})).toBe("LIVE");
    expect(nextBadge(null, WELL).tone).toBe("good");
  });

  it("tells a first connection from a lost one", () => {
    expect(label({ connected: false, wasConnected: false })).toBe("CONNECTING");
    expect(label({ connected: false })).toBe("RECONNECTING");
  });

  it("puts the worst news first", () => {
    const silent = { tickAgeMs: 60_000 };
    expect(label({ ...silent })).toBe("DELAYED 60 s");
    expect(label({ ...silent, phase: "closed" })).toBe("MARKET CLOSED");
    expect(label({ ...silent, phase: "closed", connected: false })).toBe("RECONNECTING");
  });

  it("names a simulated source in every state", () => {
    const simulated = { simulated: true, speed: 10 };
    expect(label(simulated)).toBe("SIMULATED 10×");
    for (const trouble of [{ connected: false }, { phase: "closed" as const }, { tickAgeMs: 1e6 }]) {
      const badge = nextBadge(null, { ...WELL, ...simulated, ...trouble });
      expect(badge.alsoSimulated).toBe(true);
    }
  });

  it("measures silence in the viewer's time when the market is played faster", () => {
    expect(label({ simulated: true, speed: 100, tickAgeMs: 300_000 })).toBe("SIMULATED 100×");
    expect(label({ simulated: true, speed: 100, tickAgeMs: 1_500_000 })).toBe("DELAYED 15 s");
  });

  it("is patient outside the regular session", () => {
    expect(label({ phase: "pre", tickAgeMs: 60_000 })).toBe("LIVE");
    expect(label({ phase: "post", tickAgeMs: 180_000 })).toBe("DELAYED 180 s");
  });

  it("does not flicker around the threshold", () => {
    expect(nextBadge("live", { ...WELL, tickAgeMs: 7_000 }).kind).toBe("live");
    expect(nextBadge("delayed", { ...WELL, tickAgeMs: 7_000 }).kind).toBe("delayed");
    expect(nextBadge("delayed", { ...WELL, tickAgeMs: 4_000 }).kind).toBe("live");
  });
});

describe("texts", () => {
  it("keep ages short", () => {
    expect([null, 400, 12_300, 200_000, 8e6, 4e8].map(ageText)).toEqual([
      "–",
      "0.4 s",
      "12 s",
      "3 min",
      "2 h",
      "5 d",
    ]);
  });

  it("round speeds as people write them", () => {
    expect([1, 2.5, 149.8].map(speedText)).toEqual(["1×", "2.5×", "150×"]);
  });
});
