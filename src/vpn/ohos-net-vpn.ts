/** What `import vpn from '@ohos.net.vpn'` gives under `vpn-manager/register`, as that module was imported before the kits. */
import { vpn } from './kit.js';

// biome-ignore lint/style/noDefaultExport: the name of this export is not ours to choose
export default vpn;
