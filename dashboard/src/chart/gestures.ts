/**
 * Tells the user's own zooming and panning from what the engine does to the view.
 *
 * The chart reports that its range changed, not why. A change soon after the user's hand was on it
 * is the user's: kinetic scrolling goes on for a moment after the hand has left.
 */

const COASTING_MS = 1500;
const PRESSED_ENOUGH_PX = 3;

export type Gesture = "zoom" | "pan";

export class Gestures {
  private readonly element: HTMLElement;
  private readonly stop = new AbortController();
  private readonly pointers = new Map<number, { x: number; y: number }>();
  private kind: Gesture = "pan";
  private untilMs = 0;

  constructor(element: HTMLElement) {
    this.element = element;
    const options = { signal: this.stop.signal, passive: true, capture: true };
    this.element.addEventListener(
      "wheel",
      (event) => {
        this.mark(Math.abs(event.deltaX) > Math.abs(event.deltaY) ? "pan" : "zoom");
      },
      options,
    );
    this.element.addEventListener(
      "pointerdown",
      (event) => {
        this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      },
      options,
    );
    this.element.addEventListener("pointermove", (event) => this.moved(event), options);
    for (const name of ["pointerup", "pointercancel"] as const) {
      window.addEventListener(
        name,
        (event) => {
          this.pointers.delete(event.pointerId);
        },
        options,
      );
    }
  }

  /** Whether the view is in the user's hand right now, so that nothing else may move it. */
  get holding(): boolean {
    return this.pointers.size > 0;
  }

  /** What the user is doing to the view, or has just done; null when a change is not the user's. */
  get current(): Gesture | null {
    return performance.now() <= this.untilMs ? this.kind : null;
  }

  destroy(): void {
    this.stop.abort();
  }

  private mark(kind: Gesture): void {
    this.kind = kind;
    this.untilMs = performance.now() + COASTING_MS;
  }

  private moved(event: PointerEvent): void {
    const start = this.pointers.get(event.pointerId);
    if (start === undefined) return;
    const way = Math.hypot(event.clientX - start.x, event.clientY - start.y);
    if (way < PRESSED_ENOUGH_PX) return;
    this.mark(this.pointers.size > 1 ? "zoom" : "pan");
  }
}
