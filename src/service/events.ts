/** What happens to VPNs, told to subscribers, each event with the next sequence number. */
import type { ServiceEvent } from '../ipc/methods.js';

type WithoutStamp<T> = T extends unknown ? Omit<T, 'sequence' | 'time'> : never;
export type EventBody = WithoutStamp<ServiceEvent>;

interface Subscriber {
  uid: number;
  send(event: ServiceEvent): void;
}

export class Events {
  readonly #subscribers = new Set<Subscriber>();
  #sequence = 0;

  get sequence(): number {
    return this.#sequence;
  }

  /** root hears everything, everybody else of their own VPN. Returns what ends the subscription. */
  subscribe(subscriber: Subscriber): () => void {
    this.#subscribers.add(subscriber);
    return () => void this.#subscribers.delete(subscriber);
  }

  emit(body: EventBody): void {
    const event = { sequence: ++this.#sequence, time: new Date().toISOString(), ...body } as ServiceEvent;
    for (const subscriber of this.#subscribers) {
      if (subscriber.uid === 0 || !('uid' in event) || event.uid === subscriber.uid) subscriber.send(event);
    }
  }
}
