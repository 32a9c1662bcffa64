// What takes over the page until it is closed.

import { type ReactNode, useEffect, useId, useRef } from "react";

import { Icon } from "./icons";

interface DialogProps {
  title: string;
  onClose: () => void;
  width?: string;
  /** Is handed the way to close it, which gives the focus back. */
  children: ReactNode | ((close: () => void) => ReactNode);
}

/** The browser's own modal dialog: it keeps the focus, closes on Escape and gives the focus back. */
export function Dialog({ title, onClose, width = "max-w-lg", children }: DialogProps) {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useEffect(() => {
    ref.current?.showModal();
    ref.current?.querySelector<HTMLElement>("[data-first]")?.focus();
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby={titleId}
      className={`floating w-[calc(100vw-32px)] ${width} p-0`}
      onClose={onClose}
      onPointerDown={(event) => {
        if (event.target === ref.current) ref.current?.close();
      }}
    >
      <header className="flex h-12 items-center justify-between border-b border-line pr-2 pl-4">
        <h2 id={titleId} className="text-base font-semibold">
          {title}
        </h2>
        <button
          type="button"
          className="quiet square"
          aria-label="Close"
          onClick={() => ref.current?.close()}
        >
          <Icon name="close" />
        </button>
      </header>
      {typeof children === "function" ? children(() => ref.current?.close()) : children}
    </dialog>
  );
}
