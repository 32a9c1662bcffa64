// Numbers as traders write them. A value that is not known is a dash.

export const DASH = "–";
const MINUS = "−";

const count = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

const known = (value: number | null | undefined): value is number =>
  typeof value === "number" && Number.isFinite(value);

/** Two decimals; four where the price is below a dollar. */
export function priceText(value: number | null | undefined): string {
  if (!known(value)) return DASH;
  return value.toFixed(Math.abs(value) < 1 ? 4 : 2);
}

export function signedText(value: number | null | undefined, unit = ""): string {
  if (!known(value)) return DASH;
  const size = Math.abs(value).toFixed(2);
  const sign = Number(size) === 0 ? "" : value < 0 ? MINUS : "+";
  return `${sign}${size}${unit}`;
}

export function countText(value: number | null | undefined): string {
  return known(value) ? count.format(value) : DASH;
}

export function volumeText(value: number | null | undefined): string {
  return known(value) ? compact.format(value) : DASH;
}

export function toneOf(change: number | null | undefined): "text-up" | "text-down" | "text-ink-3" {
  if (!known(change) || Math.abs(change) < 0.005) return "text-ink-3";
  return change > 0 ? "text-up" : "text-down";
}
