import { describe, expect, it } from "vitest";

import { resolveTheme, toggledTheme, withAlpha } from "./theme";

describe("the theme", () => {
  it("is the viewer's, else the system's", () => {
    expect(resolveTheme("light", false)).toBe("light");
    expect(resolveTheme("system", true)).toBe("light");
    expect(resolveTheme("system", false)).toBe("dark");
  });

  it("changes for the eyes at every press", () => {
    expect(toggledTheme("system", true)).toBe("dark");
    expect(toggledTheme("dark", true)).toBe("light");
  });
});

describe("a colour", () => {
  it("takes an opacity, and stays itself when it is of another form", () => {
    expect(withAlpha(" #3ac796", 0.4)).toBe("rgba(58, 199, 150, 0.4)");
    expect(withAlpha("rgb(1 2 3)", 0.4)).toBe("rgb(1 2 3)");
  });
});
