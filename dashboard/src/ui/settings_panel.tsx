// The viewer's own choices: theme, colours, alerts, shortcuts, and the way out.

import { askForNotifications, playTone } from "./alerts";
import { Choice } from "./choice";
import { useDesk } from "./desk_context";
import { Icon } from "./icons";
import { type Palette, THEMES, type Theme } from "./preferences";
import { useStore } from "./store";

const THEME_NAMES: Record<Theme, string> = { system: "System", dark: "Dark", light: "Light" };
const PALETTE_NAMES: Record<Palette, string> = {
  green_red: "Green, red",
  blue_orange: "Blue, orange",
};

interface SwitchProps {
  label: string;
  hint: string;
  checked: boolean;
  onChange: (checked: boolean) => void;
}

function Switch({ label, hint, checked, onChange }: SwitchProps) {
  return (
    <button
      type="button"
      role="switch"
      aria-checked={checked}
      className="flex w-full items-center justify-between gap-4 rounded-md px-2 py-1 text-left hover:bg-raised"
      onClick={() => onChange(!checked)}
    >
      <span>
        <span className="block text-sm">{label}</span>
        <span className="label block">{hint}</span>
      </span>
      <span
        className={`flex h-4 w-7 flex-none items-center rounded-full p-0.5 transition-colors ${
          checked ? "bg-accent" : "bg-edge"
        }`}
      >
        <span
          className={`h-3 w-3 rounded-full bg-panel transition-transform ${
            checked ? "translate-x-3" : ""
          }`}
        />
      </span>
    </button>
  );
}

function Row({ label, children }: { label: string; children: React.ReactNode }) {
  return (
    <div className="flex items-center justify-between gap-4 px-2 py-1">
      <span className="text-sm">{label}</span>
      {children}
    </div>
  );
}

export default function SettingsPanel({ close }: { close: () => void }) {
  const desk = useDesk();
  const preferences = useStore(desk.preferences);
  const account = useStore(desk.account);
  const canLeave =
    account.state === "ready" && account.me.auth === "password" && account.me.authenticated;
  const setSound = (sound: boolean): void => {
    desk.preferences.patch({ sound });
    if (sound) playTone("up");
  };
  const setNotifications = async (wanted: boolean): Promise<void> => {
    const notifications = wanted && (await askForNotifications());
    desk.preferences.patch({ notifications });
  };
  return (
    <div className="flex w-80 max-w-[calc(100vw-24px)] flex-col gap-1 p-2">
      <Row label="Theme">
        <Choice
          label="Theme"
          names={THEME_NAMES}
          values={THEMES}
          value={preferences.theme}
          onChange={(theme) => desk.preferences.patch({ theme })}
        />
      </Row>
      <Row label="Up, down">
        <Choice
          label="Colours of up and down"
          names={PALETTE_NAMES}
          values={["green_red", "blue_orange"]}
          value={preferences.palette}
          onChange={(palette) => desk.preferences.patch({ palette })}
        />
      </Row>
      <hr className="my-1 border-line" />
      <Switch
        label="Sound"
        hint="Two tones for a new signal"
        checked={preferences.sound}
        onChange={setSound}
      />
      <Switch
        label="Notifications"
        hint="While this page is in the background"
        checked={preferences.notifications}
        onChange={(wanted) => void setNotifications(wanted)}
      />
      <Switch
        label="Shortcuts"
        hint="Single keys, as ? lists them"
        checked={preferences.shortcuts}
        onChange={(shortcuts) => desk.preferences.patch({ shortcuts })}
      />
      {desk.mayLogin() && (
        <>
          <hr className="my-1 border-line" />
          <button
            type="button"
            className="quiet justify-start!"
            onClick={() => {
              close();
              desk.askLogin();
            }}
          >
            <Icon name="exit" /> Sign in
          </button>
        </>
      )}
      {canLeave && (
        <>
          <hr className="my-1 border-line" />
          <button
            type="button"
            className="quiet justify-start!"
            onClick={() => {
              close();
              void desk.logout();
            }}
          >
            <Icon name="exit" /> Sign out
          </button>
        </>
      )}
    </div>
  );
}
