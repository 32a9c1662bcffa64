// Builds the page to plain files that any web server can hand out, under any path.

import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` serves the page itself and asks a running gateway for everything else.
const GATEWAY = "http://127.0.0.1:8080";

export default defineConfig({
  base: "./",
  plugins: [react(), tailwindcss()],
  build: {
    target: "es2022",
    // A data: address would need a hole in the content security policy.
    assetsInlineLimit: 0,
    // The polyfill is an inline script, and every browser that can run the page preloads modules.
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    proxy: { "/api": { target: GATEWAY, ws: true }, "/schwab": { target: GATEWAY } },
  },
  test: {
    include: ["src/**/*.test.ts"],
    environment: "node",
  },
});
