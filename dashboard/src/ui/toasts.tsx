// New signals, for a few seconds, in the corner; and in the live region for those who listen.

import { signalDetail, signalTitle } from "./alerts";
import { useDesk } from "./desk_context";
import { Icon } from "./icons";
import { useStore } from "./store";

export function Toasts() {
  const desk = useDesk();
  const toasts = useStore(desk.announcer.toasts);
  const spoken = useStore(desk.announcer.spoken);
  return (
    <aside aria-label="New signals">
      <p className="sr-only" role="status" aria-live="polite" data-testid="announcements">
        {spoken}
      </p>
      <ul className="fixed right-4 bottom-12 z-40 flex w-72 max-w-[calc(100vw-32px)] flex-col gap-2">
        {toasts.map(({ key, signal }) => (
          <li key={key} className="toast floating flex items-center gap-3 py-2 pr-2 pl-3">
            <span className={signal.direction === "up" ? "text-up" : "text-down"}>
              <Icon name={signal.direction} size={12} />
            </span>
            <button
              type="button"
              className="min-w-0 flex-1 rounded-sm text-left"
              onClick={() => {
                desk.announcer.open(signal);
                desk.announcer.dismiss(key);
              }}
            >
              <span className="block truncate text-sm font-semibold">{signalTitle(signal)}</span>
              <span className="label block truncate">{signalDetail(signal)}</span>
            </button>
            <button
              type="button"
              className="quiet square"
              aria-label="Dismiss"
              onClick={() => desk.announcer.dismiss(key)}
            >
              <Icon name="close" size={14} />
            </button>
          </li>
        ))}
      </ul>
    </aside>
  );
}
