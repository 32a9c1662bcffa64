// A few values of which one holds.

interface ChoiceProps<T extends string> {
  label: string;
  names: Record<T, string>;
  values: readonly T[];
  value: T;
  onChange: (value: T) => void;
}

export function Choice<T extends string>(props: ChoiceProps<T>) {
  const { label, names, values, value, onChange } = props;
  return (
    <div
      role="group"
      aria-label={label}
      className="segments"
    >
      {values.map((each) => (
        <button
          key={each}
          type="button"
          aria-pressed={each === value}
          onClick={() => onChange(each)}
        >
          {names[each]}
        </button>
      ))}
    </div>
  );
}
