import { describe, expect, it } from "vitest";

import { countText, priceText, signedText, toneOf, volumeText } from "./format";

describe("numbers", () => {
  it("show a dash for what is not known", () => {
    for (const text of [priceText(null), signedText(Number.NaN), countText(undefined)]) {
      expect(text).toBe("–");
    }
  });

  it("have a sign where they are changes, and none when they round to nothing", () => {
    expect([1.234, -0.5, 0.001, -0.001].map((value) => signedText(value, "%"))).toEqual([
      "+1.23%",
      "−0.50%",
      "0.00%",
      "0.00%",
    ]);
    expect([1, -1, 0.001, null].map(toneOf)).toEqual([
      "text-up",
      "text-down",
      "text-ink-3",
      "text-ink-3",
    ]);
  });

  it("keep the digits of penny stocks", () => {
    expect([376.4, 0.1234].map(priceText)).toEqual(["376.40", "0.1234"]);
  });

  it("are short where only size matters", () => {
    expect([countText(1834200), volumeText(1834200)]).toEqual(["1,834,200", "1.8M"]);
  });
});
