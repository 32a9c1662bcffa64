import { describe, expect, it } from "vitest";
import { reasonText } from "./gap_reason";

describe("why a gap is not filled", () => {
  it("is said in words", () => {
    expect(reasonText("no_trade")).toBe("nothing was traded");
    expect(reasonText("tick_series")).toBe("ticks have no history");
  });

  it("is empty where there is no reason, and plain where the word is new", () => {
    expect(reasonText("")).toBe("");
    expect(reasonText("moon_eclipse")).toBe("moon eclipse");
  });
});
