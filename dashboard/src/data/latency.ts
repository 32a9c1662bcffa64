/**
 * The round trip to the server and the difference of the two wall clocks.
 *
 * A slow answer says little about either: only the quickest of the last answers count, and of those
 * the median.
 */

const KEPT = 24;
const QUICKEST = 5;

interface Sample {
  rttMs: number;
  offsetMs: number;
}

export class Latency {
  private readonly samples: Sample[] = [];

  /**
   * A question sent at `sentMs` was answered at `receivedMs` (local), the server reading
   * `serverMs`.
   */
  add(sentMs: number, receivedMs: number, serverMs: number): void {
    const rttMs = Math.max(receivedMs - sentMs, 0);
    this.samples.push({ rttMs, offsetMs: serverMs - (sentMs + receivedMs) / 2 });
    if (this.samples.length > KEPT) this.samples.shift();
  }

  get rttMs(): number | null {
    return median(this.quickest().map((sample) => sample.rttMs));
  }

  /** What to add to the local clock to get the server's; 0 before anything is known. */
  get offsetMs(): number {
    return median(this.quickest().map((sample) => sample.offsetMs)) ?? 0;
  }

  clear(): void {
    this.samples.length = 0;
  }

  private quickest(): Sample[] {
    return [...this.samples].sort((a, b) => a.rttMs - b.rttMs).slice(0, QUICKEST);
  }
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] as number;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] as number) + high) / 2;
}
