import { describe, expect, it } from "vitest";

import { HELP } from "./key_list";
import { actionOf, type Press } from "./keymap";

const press = (key: string, change: Partial<Press> = {}): Press => ({
  key,
  ctrlKey: false,
  metaKey: false,
  altKey: false,
  typing: false,
  arrowsTaken: false,
  ...change,
});

describe("keys", () => {
  it("do what the help says, in either case", () => {
    expect(actionOf(press("/"))).toBe("search");
    expect(actionOf(press("?"))).toBe("help");
    expect(actionOf(press("L"))).toBe("live");
    expect(actionOf(press("["))).toBe("previous_day");
    expect(actionOf(press("3"))).toBe("timeframe_3");
  });

  it("are left to the browser with a modifier", () => {
    expect(actionOf(press("l", { ctrlKey: true }))).toBeNull();
    expect(actionOf(press("r", { metaKey: true }))).toBeNull();
    expect(actionOf(press("d", { altKey: true }))).toBeNull();
  });

  it("are off while somebody types", () => {
    expect(actionOf(press("/", { typing: true }))).toBeNull();
  });

  it("leave the arrows to an element that uses them", () => {
    expect(actionOf(press("ArrowLeft"))).toBe("pan_left");
    expect(actionOf(press("ArrowLeft", { arrowsTaken: true }))).toBeNull();
    expect(actionOf(press("l", { arrowsTaken: true }))).toBe("live");
  });

  it("ignore what means nothing, even words of the language", () => {
    expect(actionOf(press("q"))).toBeNull();
    expect(actionOf(press("toString"))).toBeNull();
  });

  it("are all in the help", () => {
    const shown = HELP.flatMap((group) => group.keys.flatMap(([keys]) => keys));
    for (const key of ["←", "/", "[", "L", "G", "?", "H", "T"]) expect(shown).toContain(key);
  });
});
