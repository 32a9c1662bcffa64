// The page: who may see it, and where its parts stand on wide and narrow screens.

import { lazy, Suspense, useCallback, useEffect, useState } from "react";

import { UrlWriter } from "../data/url";
import { urlOf } from "./address";
import { ChartArea, Notice } from "./chart_area";
import { ChartHeader, ChartToolbar } from "./chart_toolbar";
import type { Desk } from "./desk";
import { DeskContext, useDesk } from "./desk_context";
import { Footer } from "./footer";
import { useShortcuts } from "./shortcuts";
import { SidePanel } from "./side_panel";
import { useStore } from "./store";
import { TickerSearch } from "./ticker_search";
import { Toasts } from "./toasts";
import { TopBar } from "./top_bar";
import { Watchlist } from "./watchlist";

// What is not seen at first is not loaded at first; but who searches types at once.
const Help = lazy(() => import("./help"));
const LoginPage = lazy(() => import("./login_page"));
const StatusPage = lazy(() => import("./status_page"));

type Range = { from_ms: number; to_ms: number };

/** Keeps the address at what is shown, so that a link shows somebody else the same. */
function useAddress(desk: Desk): (range: Range | null) => void {
  const [writer] = useState(() => new UrlWriter());
  const [place] = useState<{ range: Range | null }>({ range: desk.firstRange });
  useEffect(() => {
    let shown = `${desk.date()}`;
    return desk.view.subscribe(() => {
      // A stretch of another day would point nowhere.
      if (shown !== `${desk.date()}`) place.range = null;
      shown = `${desk.date()}`;
      writer.write(urlOf(desk.view.get(), place.range, desk.date()));
    });
  }, [desk, writer, place]);
  useEffect(
    () =>
      desk.mode.subscribe(() => {
        if (desk.mode.get() !== "follow" || place.range === null) return;
        place.range = null;
        writer.write(urlOf(desk.view.get(), null, null));
      }),
    [desk, writer, place],
  );
  return useCallback(
    (range) => {
      place.range = desk.mode.get() === "follow" ? null : range;
      writer.write(urlOf(desk.view.get(), place.range, desk.date()));
    },
    [desk, writer, place],
  );
}

interface ChartPageProps {
  picking: boolean;
  onPicking: (open: boolean) => void;
  onView: (range: Range | null) => void;
}

function ChartPage({ picking, onPicking, onView }: ChartPageProps) {
  return (
    <div className="flex min-h-0 flex-1 flex-col gap-px bg-line md:grid md:grid-cols-[224px_minmax(0,1fr)] md:grid-rows-[minmax(0,1fr)_240px] xl:grid-cols-[248px_minmax(0,1fr)_336px] xl:grid-rows-1">
      <div className="contents md:row-span-2 md:flex md:min-h-0 md:flex-col md:bg-panel xl:row-span-1">
        <Watchlist />
      </div>
      <main className="flex h-[68dvh] min-h-96 min-w-0 flex-none flex-col bg-panel md:h-auto md:min-h-0">
        <ChartHeader picking={picking} onPicking={onPicking} />
        <ChartToolbar />
        <ChartArea onView={onView} />
      </main>
      <SidePanel />
    </div>
  );
}

function Away({ message }: { message: string }) {
  const desk = useDesk();
  return (
    <main className="relative h-dvh">
      <Notice title="The server cannot be reached" detail={`${message} The page keeps trying.`}>
        <button type="button" className="solid" onClick={() => void desk.start()}>
          Try again now
        </button>
      </Notice>
    </main>
  );
}

function Desktop() {
  const desk = useDesk();
  const { page } = useStore(desk.view);
  const [open, setOpen] = useState<"search" | "help" | null>(null);
  const [picking, setPicking] = useState(false);
  const onView = useAddress(desk);
  useShortcuts(desk, {
    search: () => setOpen("search"),
    help: () => setOpen("help"),
    pickDate: () => {
      desk.view.patch({ page: "chart" });
      setPicking(true);
    },
  });
  const close = (): void => setOpen(null);
  return (
    <div className="flex min-h-dvh flex-col md:h-dvh md:overflow-hidden">
      <TopBar onSearch={() => setOpen("search")} onHelp={() => setOpen("help")} />
      {page === "status" ? (
        <Suspense fallback={<main className="flex-1" />}>
          <StatusPage />
        </Suspense>
      ) : (
        <ChartPage picking={picking} onPicking={setPicking} onView={onView} />
      )}
      <Footer />
      <Toasts />
      {open === "search" && <TickerSearch onClose={close} />}
      <Suspense>{open === "help" && <Help onClose={close} />}</Suspense>
    </div>
  );
}

function Gate() {
  const desk = useDesk();
  const account = useStore(desk.account);
  // Once the page has stood, a lost connection is told by its badge, not by its absence.
  const calendar = useStore(desk.calendar);
  if (account.state === "login") {
    return (
      <Suspense>
        <LoginPage />
      </Suspense>
    );
  }
  if (account.state === "away" && calendar === null) return <Away message={account.message} />;
  return <Desktop />;
}

export function App({ desk }: { desk: Desk }) {
  return (
    <DeskContext value={desk}>
      <Gate />
    </DeskContext>
  );
}
