import { describe, expect, it } from "vitest";

import { instancesOf, StartCounter } from "./restarts";

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

  it("are read from what the status channel says, and from nothing else", () => {
    expect(instancesOf([{ instance: "a", partitions: 1 }, { instance: "b" }])).toEqual(["a", "b"]);
    for (const said of [null, 7, {}, [null, 7, {}, { instance: 7 }]]) {
      expect(instancesOf(said)).toEqual([]);
    }
  });
});
