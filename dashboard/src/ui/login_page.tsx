// The way in where the gateway wants a password.

import { type FormEvent, useState } from "react";

import { SourceError } from "../data/source";
import { useDesk } from "./desk_context";
import { Logo } from "./icons";
import { useStore } from "./store";

function messageOf(error: unknown): string {
  if (error instanceof SourceError && error.status === 401) return "This is not the password.";
  if (error instanceof SourceError && error.status === 429) {
    const seconds = Math.ceil((error.retryAfterMs ?? 1000) / 1000);
    return `Too many attempts. Try again in ${seconds} s.`;
  }
  return error instanceof Error ? error.message : String(error);
}

export default function LoginPage() {
  const desk = useDesk();
  const account = useStore(desk.account);
  const [message, setMessage] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent<HTMLFormElement>): Promise<void> => {
    event.preventDefault();
    const password = new FormData(event.currentTarget).get("password");
    setBusy(true);
    setMessage(null);
    try {
      await desk.login(String(password ?? ""));
    } catch (error) {
      setMessage(messageOf(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <main className="flex min-h-dvh items-center justify-center p-4">
      <form
        className="floating flex w-full max-w-sm flex-col gap-4 p-6"
        onSubmit={(event) => void submit(event)}
      >
        <div className="flex items-center gap-3 pb-2">
          <Logo size={28} />
          <h1 className="text-lg font-semibold tracking-[-0.01em]">Alpha Kite Max</h1>
        </div>
        <label className="flex flex-col gap-1">
          <span className="text-xs font-medium text-ink-2">Password</span>
          <input
            className="field"
            type="password"
            name="password"
            autoComplete="current-password"
            required
            autoFocus
            aria-invalid={message !== null}
            aria-describedby="login-message"
          />
        </label>
        <p id="login-message" role="alert" className="min-h-5 text-xs text-down">
          {message}
        </p>
        <button type="submit" className="solid" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
        {account.state === "login" && account.me.public_market && (
          <button type="button" className="quiet justify-center!" onClick={() => void desk.start()}>
            Back to the chart
          </button>
        )}
      </form>
    </main>
  );
}
