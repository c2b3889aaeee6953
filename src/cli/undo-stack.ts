/** What has to be done on the way out, in the reverse order of what was done on the way in; all of it, whatever fails. */
export class UndoStack {
  readonly #steps: { what: string; undo: () => unknown }[] = [];

  /** `what`: the step back in words, for the sentence that says it failed. */
  push(what: string, undo: () => unknown): void {
    this.#steps.push({ what, undo });
  }

  /** Sentences about the steps that failed. Each step is taken once, however often this is called. */
  async unwind(): Promise<string[]> {
    const problems: string[] = [];
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        problems.push(`${step.what}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return problems;
  }
}
