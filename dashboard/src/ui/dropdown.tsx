// What hangs below a button until somebody looks elsewhere.

import { type ReactNode, useEffect, useRef, useState } from "react";

const SIDES = { left: "left-0", right: "right-0", wide_right: "left-0 sm:right-0 sm:left-auto" };

interface DropdownProps {
  label: string;
  button: ReactNode;
  buttonClass?: string;
  /** Which edges meet; "wide_right" is right where there is room, left on a phone. */
  align?: keyof typeof SIDES;
  /** The button shows text, which then is its name. */
  withText?: boolean;
  /** Lets others open it, as a key does. */
  open?: boolean;
  onOpen?: (open: boolean) => void;
  children: (close: () => void) => ReactNode;
}

export function Dropdown(props: DropdownProps) {
  const { label, button, buttonClass = "quiet", align = "left", children } = props;
  const withText = props.withText ?? false;
  const [inner, setInner] = useState(false);
  const open = props.open ?? inner;
  const setOpen = (next: boolean): void => {
    setInner(next);
    props.onOpen?.(next);
  };
  const root = useRef<HTMLDivElement>(null);
  const trigger = useRef<HTMLButtonElement>(null);
  const close = (): void => {
    setOpen(false);
    trigger.current?.focus();
  };
  useEffect(() => {
    if (!open) return;
    const outside = (event: PointerEvent): void => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    // Also while what hangs below is still being loaded, and has no focus.
    const escape = (event: KeyboardEvent): void => {
      if (event.key === "Escape") close();
    };
    document.addEventListener("pointerdown", outside);
    document.addEventListener("keydown", escape);
    return () => {
      document.removeEventListener("pointerdown", outside);
      document.removeEventListener("keydown", escape);
    };
  });
  return (
    <div
      ref={root}
      className="relative"
      onBlur={(event) => {
        const next = event.relatedTarget as Node | null;
        if (next !== null && !root.current?.contains(next)) setOpen(false);
      }}
    >
      <button
        ref={trigger}
        type="button"
        className={buttonClass}
        aria-expanded={open}
        aria-label={withText ? undefined : label}
        title={label}
        onClick={() => setOpen(!open)}
      >
        {button}
      </button>
      {open && (
        <div
          className={`floating absolute top-full z-30 mt-1 ${SIDES[align]}`}
        >
          {children(close)}
        </div>
      )}
    </div>
  );
}
