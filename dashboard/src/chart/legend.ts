/**
 * The line of values over the chart: those under the crosshair, else the newest.
 *
 * Written straight into text nodes, because it changes with every move of the mouse. Screen readers
 * do not get it: the tables say the same.
 */

export interface LegendEntry {
  /** Stays the same for an entry over its life; also the name of its CSS class. */
  key: string;
  label: string;
  value: string;
  color: string;
}

export class Legend {
  private readonly root: HTMLElement;
  private readonly entries = new Map<string, { label: Text; value: Text; element: HTMLElement }>();

  constructor(parent: HTMLElement) {
    this.root = document.createElement("div");
    this.root.className = "chart-legend";
    this.root.setAttribute("aria-hidden", "true");
    Object.assign(this.root.style, {
      position: "absolute",
      top: "6px",
      left: "10px",
      right: "76px",
      zIndex: "3",
      pointerEvents: "none",
      display: "flex",
      flexWrap: "wrap",
      columnGap: "12px",
      font: "500 12px/1.45 ui-sans-serif, system-ui, sans-serif",
      fontVariantNumeric: "tabular-nums",
    });
    parent.appendChild(this.root);
  }

  /** Shows exactly these entries; only what differs is touched. */
  show(entries: readonly LegendEntry[]): void {
    const wanted = new Set(entries.map((entry) => entry.key));
    for (const [key, known] of this.entries) {
      if (wanted.has(key)) continue;
      known.element.remove();
      this.entries.delete(key);
    }
    for (const entry of entries) {
      const known = this.entries.get(entry.key) ?? this.add(entry.key);
      if (known.label.data !== entry.label) known.label.data = entry.label;
      if (known.value.data !== entry.value) known.value.data = entry.value;
      if (known.element.dataset["color"] !== entry.color) {
        known.element.dataset["color"] = entry.color;
        known.element.style.color = entry.color;
      }
    }
  }

  remove(): void {
    this.root.remove();
    this.entries.clear();
  }

  private add(key: string): { label: Text; value: Text; element: HTMLElement } {
    const element = document.createElement("span");
    element.className = `chart-legend-${key.replace(/[^a-z0-9]+/gi, "-")}`;
    const label = document.createTextNode("");
    const value = document.createTextNode("");
    const strong = document.createElement("span");
    strong.style.fontWeight = "650";
    strong.appendChild(value);
    element.append(label, " ", strong);
    this.root.appendChild(element);
    const made = { label, value, element };
    this.entries.set(key, made);
    return made;
  }
}

export function formatPrice(value: number | null | undefined): string {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(2);
}

/** `950`, `18.4K`, `1.23M`. */
export function formatVolume(value: number): string {
  if (Number.isNaN(value)) return "–";
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)}B`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}K`;
  return String(Math.round(value));
}
