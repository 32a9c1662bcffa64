// The page's first line: settings, source, page.

import { loadConfig, openSource } from "../data/source";
import { start } from "./start";
import "./styles.css";

void loadConfig().then(openSource).then(start);
