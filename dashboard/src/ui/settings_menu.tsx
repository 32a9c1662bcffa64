// The button that opens the viewer's choices.

import { lazy, Suspense } from "react";

import { Icon } from "./icons";
import { Dropdown } from "./dropdown";

const SettingsPanel = lazy(() => import("./settings_panel"));

export function SettingsMenu() {
  return (
    <Dropdown
      label="Settings"
      align="right"
      buttonClass="quiet square"
      button={<Icon name="settings" />}
    >
      {(close) => (
        <Suspense>
          <SettingsPanel close={close} />
        </Suspense>
      )}
    </Dropdown>
  );
}
