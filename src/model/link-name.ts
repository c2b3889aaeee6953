/**
 * Names of network links that may stand in our rules. The kernel allows more (quotes, wildcards as nft reads them); a link that is
 * called so is not one that anybody configures by name.
 */
export function isLinkName(text: string): boolean {
  return /^[A-Za-z0-9_.@-]{1,15}$/.test(text) && text !== '.' && text !== '..';
}
