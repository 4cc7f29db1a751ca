// A number of lanes that work through one list: as many items at once as there are lanes.

/** Resolves when all is done. After a failure no lane takes another item; it rejects when all stand still. */
export async function inLanes<T>(
  lanes: number,
  items: readonly T[],
  body: (item: T) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = [];
  const queue = items.values();
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (failures.length > 0) return;
      await body(item).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  // oxlint-disable-next-line typescript/only-throw-error -- handed on as it came
  if (failures.length > 0) throw failures[0];
}
