// Hands the desk to every component below.

import { createContext, useContext } from "react";

import type { Desk } from "./desk";

export const DeskContext = createContext<Desk | null>(null);

export function useDesk(): Desk {
  const desk = useContext(DeskContext);
  if (desk === null) throw new Error("a component stands outside the desk");
  return desk;
}
