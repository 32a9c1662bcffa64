import { describe, expect, it } from "vitest";

import { DEFAULTS, parsePreferences } from "./preferences";

describe("preferences", () => {
  it("survive being stored", () => {
    const mine = { ...DEFAULTS, theme: "light" as const, sound: true };
    expect(parsePreferences(JSON.stringify(mine))).toEqual(mine);
  });

  it("fall back to the default, each on its own", () => {
    const text = '{"theme": "pink", "palette": 7, "sound": "yes", "shortcuts": false}';
    expect(parsePreferences(text)).toEqual({ ...DEFAULTS, shortcuts: false });
  });

  it("take nothing from what is no object", () => {
    for (const text of [null, "", "{", "7", "null", "[]"]) {
      expect(parsePreferences(text)).toEqual(DEFAULTS);
    }
  });
});
