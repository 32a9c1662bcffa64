// Brings the page to life on a data source.

import { createRoot } from "react-dom/client";

import type { DataSource } from "../data/source";
import { readUrl } from "../data/url";
import { viewOf } from "./address";
import { App } from "./app";
import { Desk } from "./desk";
import { exposeHook } from "./page_hook";
import { openPreferences } from "./preferences";
import { createStore } from "./store";
import { applyTheme, onSystemTheme } from "./theme";

export function start(source: DataSource): void {
  const preferences = openPreferences();
  applyTheme(preferences.get());
  preferences.subscribe(() => applyTheme(preferences.get()));
  onSystemTheme(() => {
    applyTheme(preferences.get());
    preferences.set({ ...preferences.get() }); // So that the chart takes its colours anew.
  });
  const url = readUrl(location.search);
  const desk = new Desk(source, createStore(viewOf(url)), preferences, url.view);
  exposeHook(desk);
  const root = document.getElementById("root");
  if (root === null) throw new Error("the page has no root");
  createRoot(root).render(<App desk={desk} />);
  void desk.start();
}
