/**
 * `node --import vpn-manager/register FILE.ets [METHOD…]`: resolves `@kit.NetworkKit`, `@kit.AbilityKit`,
 * `@kit.BasicServicesKit` and `@ohos.net.vpn`, and loads `.ets` files. When the main script is one, its `@Entry` component is
 * created and run (ets-runner.ts); otherwise this only installs the hooks.
 */
import { register } from 'node:module';

register('./ets-hooks.js', import.meta.url);
