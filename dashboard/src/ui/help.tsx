// The keys, as `?` shows them.

import { HELP } from "./key_list";
import { Dialog } from "./dialog";

export default function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard shortcuts" onClose={onClose} width="max-w-2xl">
      <div className="grid gap-x-8 gap-y-4 p-4 sm:grid-cols-2">
        {HELP.map((group) => (
          <section key={group.title}>
            <h3 className="label pb-1">{group.title}</h3>
            <dl className="divide-y divide-line">
              {group.keys.map(([keys, what]) => (
                <div key={what} className="flex h-8 items-center justify-between gap-4">
                  <dt className="text-sm text-ink-2">{what}</dt>
                  <dd className="flex gap-1">
                    {keys.map((key) => (
                      <kbd key={key} className={key === "…" ? "text-ink-3" : "key"}>
                        {key}
                      </kbd>
                    ))}
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <p className="label border-t border-line px-4 py-3">
        In the chart: wheel or pinch zooms, dragging pans, dragging an axis scales it, a double click on
        the price axis scales it to what is in view.
      </p>
    </Dialog>
  );
}
