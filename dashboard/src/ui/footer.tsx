// Who made what, and whose prices these are.

import { useDesk } from "./desk_context";
import { useStore } from "./store";

const LINK = "rounded-sm underline decoration-edge underline-offset-2 hover:text-ink";

export function Footer() {
  const desk = useDesk();
  const account = useStore(desk.account);
  const me = account.state === "ready" ? account.me : null;
  return (
    <footer className="label flex flex-wrap items-center gap-x-4 gap-y-1 border-t border-line bg-panel px-3 py-1.5 md:h-7 md:py-0">
      <span>
        Charts by{" "}
        <a className={LINK} href="https://www.tradingview.com/" target="_blank" rel="noopener noreferrer">
          TradingView Lightweight Charts™
        </a>
      </span>
      <a className={LINK} href="./third_party.txt" target="_blank" rel="noopener noreferrer">
        Licences
      </a>
      <span className="flex-1" />
      {me?.simulated && <span>Simulated prices, not the market's</span>}
      {me !== null && (
        <span>
          Source {me.source}
          {me.version !== "" && ` · ${me.version}`}
        </span>
      )}
    </footer>
  );
}
