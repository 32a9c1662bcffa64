// The page on the made-up market: `npm run demo`.

import { start } from "../src/ui/start";
import "../src/ui/styles.css";
import { DemoSource } from "./demo_source";

start(new DemoSource(location.search));
