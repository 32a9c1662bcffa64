// The icons of the page: 16 px, one stroke width, drawn in the colour of the text around them.

import type { ReactNode } from "react";

const PATHS = {
  search: <path d="M7 12a5 5 0 1 0 0-10 5 5 0 0 0 0 10Zm3.6-1.4L14 14" />,
  left: <path d="M10 3 5 8l5 5" />,
  right: <path d="m6 3 5 5-5 5" />,
  calendar: <path d="M2.5 4.5h11v9h-11zM2.5 7.5h11M5.5 2.5v3M10.5 2.500v3" />,
  candles: <path d="M5 2v2.500m0 6V13M3 4.500h4v6H3zM11 3.500V6m0 5v2.500M9 6h4v5H9z" />,
  line: <path d="m2 11 3.5-4 3 2.500L14 4" />,
  bell: <path d="M4 11V7a4 4 0 0 1 8 0v4l1.5 1.500h-11zM6.5 14h3" />,
  sun: (
    <path d="M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM8 1.500V3m0 10v1.500M1.5 8H3m10 0h1.500M3.4 3.400l1 1m7.2 7.2 1 1m0-9.2-1 1m-7.2 7.2-1 1" />
  ),
  moon: <path d="M13.5 9.500A5.8 5.8 0 0 1 6.5 2.500a5.8 5.8 0 1 0 7 7Z" />,
  system: <path d="M2 3h12v8H2zM6 14h4M8 11v3" />,
  pulse: <path d="M1.5 8.500h3l2-5 3 9 2-4h3" />,
  keyboard: <path d="M1.5 4h13v8h-13zM4 6.500h.01M6.7 6.500h.01M9.3 6.500h.01M12 6.500h.01M5 9.500h6" />,
  close: <path d="m4 4 8 8m0-8-8 8" />,
  check: <path d="m3 8.5 3.5 3.500L13 4.5" />,
  download: <path d="M8 2v8m-3.5-3L8 10.5 11.5 7M2.5 13.500h11" />,
  settings: (
    <path d="M2 4.500h7m3 0h2M2 11.500h2m3 0h7M10.5 6a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Zm-5 7a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z" />
  ),
  up: <path d="M8 4 13 12H3z" fill="currentColor" />,
  down: <path d="M8 12 3 4h10z" fill="currentColor" />,
  live: <path d="M3 3v10m3-5h7m-3-3 3 3-3 3" />,
  refresh: <path d="M13 3v3.500H9.500M13 6.500a5.5 5.5 0 1 0 .3 3" />,
  chart: <path d="M2.5 2v11.500H14M5 10l2.5-3 2 1.500L13 4.5" />,
  exit: <path d="M6 2.500H3v11h3M6.5 8H14m-3-3 3 3-3 3" />,
} satisfies Record<string, ReactNode>;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      className="flex-none"
    >
      {PATHS[name]}
    </svg>
  );
}

/** The kite: the same shape as the page's icon. */
export function Logo({ size = 20 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 20 20" aria-hidden="true" className="flex-none">
      <path d="M10 1 17 8.5 10 17 3 8.500Z" fill="#2f6fe4" />
      <path d="M10 1 17 8.500H10Z" fill="#7fb2ff" />
      <path d="M10 8.500V17L3 8.500Z" fill="#5b97f5" />
      <path d="M10 17c-.2 1 1.2.8 1 2" fill="none" stroke="#f0a020" strokeLinecap="round" />
    </svg>
  );
}
