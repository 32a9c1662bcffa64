// A day's closes as a small line, against the close before.

const WIDTH = 56;
const HEIGHT = 24;

/** The line's points, and where the reference lies; pure, so that it can be tested. */
export function sparkPath(
  values: readonly number[],
  reference: number | null,
): { path: string; referenceY: number | null } {
  const known = values.filter((value) => Number.isFinite(value));
  if (known.length < 2) return { path: "", referenceY: null };
  const all = reference === null ? known : [...known, reference];
  const low = Math.min(...all);
  const range = Math.max(...all) - low || 1;
  const y = (value: number): number =>
    Math.round((HEIGHT - 2 - ((value - low) / range) * (HEIGHT - 4)) * 10) / 10;
  const step = WIDTH / (known.length - 1);
  const points = known.map((value, index) => `${Math.round(index * step * 10) / 10} ${y(value)}`);
  return { path: `M${points.join("L")}`, referenceY: reference === null ? null : y(reference) };
}

export function Sparkline({ values, reference }: { values: number[]; reference: number | null }) {
  const { path, referenceY } = sparkPath(values, reference);
  const last = values.at(-1) ?? 0;
  const tone = last >= (reference ?? values[0] ?? 0) ? "text-up" : "text-down";
  return (
    <svg
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      width={WIDTH}
      height={HEIGHT}
      fill="none"
      aria-hidden="true"
      className={`flex-none ${tone}`}
    >
      {referenceY !== null && (
        <path d={`M0 ${referenceY}H${WIDTH}`} stroke="var(--edge)" strokeDasharray="2 3" />
      )}
      <path d={path} stroke="currentColor" strokeWidth="1.25" strokeLinejoin="round" />
    </svg>
  );
}
