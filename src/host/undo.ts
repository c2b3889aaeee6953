/** A stack of what undoes the steps done so far. Every change to the host pushes its undoing before the next step begins. */
export class UndoStack {
  readonly #steps: (() => void | Promise<void>)[] = [];

  push(step: () => void | Promise<void>): void {
    this.#steps.push(step);
  }

  /** Undoes everything, last step first. A step that fails does not keep the others from running; its error is returned. */
  async unwind(): Promise<Error[]> {
    const errors: Error[] = [];
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error as Error);
      }
    }
    return errors;
  }
}
