// One script and one style sheet with names that stay: the server's page links them, with the time of the build behind.
import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

export default defineConfig({
  publicDir: false,
  define: { FHIRCLIENT_PURE: "true" }, // fhirclient brings no stand-ins for what browsers have
  resolve: { alias: { "isomorphic-webcrypto": fileURLToPath(new URL("src/crypto.ts", import.meta.url)) } },
  build: {
    outDir: "../../portal/static/tracker",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      input: "src/main.ts",
      output: { entryFileNames: "tracker.js", assetFileNames: "tracker.[ext]", codeSplitting: false },
    },
  },
});
