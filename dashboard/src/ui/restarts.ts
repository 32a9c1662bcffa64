// How often the instances of a service were replaced while somebody watched.
//
// Every start of a process gives itself a new name; so a name that was not there at the first look
// is a start, and a start after the first look is a restart (or one more instance, which is counted
// as well: the table says "starts seen").

export class StartCounter {
  private readonly known = new Map<string, Set<string>>();
  private readonly starts = new Map<string, number>();

  see(service: string, instances: readonly string[]): void {
    const names = this.known.get(service);
    if (names === undefined) {
      this.known.set(service, new Set(instances));
      return;
    }
    for (const instance of instances) {
      if (names.has(instance)) continue;
      names.add(instance);
      this.starts.set(service, this.count(service) + 1);
    }
  }

  count(service: string): number {
    return this.starts.get(service) ?? 0;
  }
}

/** The names in what the status channel says of a service; nothing of what is not understood. */
export function instancesOf(said: unknown): string[] {
  if (!Array.isArray(said)) return [];
  return said.flatMap((each: unknown) => {
    const name = typeof each === "object" && each !== null && "instance" in each && each.instance;
    return typeof name === "string" ? [name] : [];
  });
}
