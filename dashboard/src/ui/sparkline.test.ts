import { describe, expect, it } from "vitest";

import { sparkPath } from "./sparkline";

describe("a sparkline", () => {
  it("spans its box, the highest value on top", () => {
    expect(sparkPath([1, 3, 2], null).path).toBe("M0 22L28 2L56 12");
  });

  it("makes room for the close before", () => {
    expect(sparkPath([2, 3], 1)).toEqual({ path: "M0 12L56 2", referenceY: 22 });
  });

  it("draws nothing out of one value, and a flat line out of equal ones", () => {
    expect(sparkPath([1], 1).path).toBe("");
    expect(sparkPath([5, 5], null).path).toBe("M0 22L56 22");
  });
});
