import { describe, expect, it } from "vitest";

import { StartCounter } from "./restarts";

describe("starts", () => {
  it("are counted from the second look on", () => {
    const counter = new StartCounter();
    counter.see("writer", ["a"]);
    expect(counter.count("writer")).toBe(0);
    counter.see("writer", ["b"]);
    counter.see("writer", ["b"]);
    counter.see("writer", ["c", "b"]);
    expect(counter.count("writer")).toBe(2);
  });

  it("are not counted for an instance that was away for a while", () => {
    const counter = new StartCounter();
    counter.see("writer", ["a"]);
    counter.see("writer", []);
    counter.see("writer", ["a"]);
    expect(counter.count("writer")).toBe(0);
  });

  it("are zero for a service that was never seen", () => {
    expect(new StartCounter().count("ingest")).toBe(0);
  });
});
