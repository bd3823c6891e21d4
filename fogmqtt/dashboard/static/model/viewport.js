// Which part of a picture is on the screen: zoom and position, in pixels of the picture.

const MOST = 48;

export class Viewport {
  /** A picture of `width` × `height` in a box of `boxWidth` × `boxHeight` screen pixels. */
  constructor(width, height, boxWidth, boxHeight) {
    this.width = width;
    this.height = height;
    this.resize(boxWidth, boxHeight);
    this.fit();
  }

  resize(boxWidth, boxHeight) {
    const wasFit = this.isFit;
    this.boxWidth = Math.max(1, boxWidth);
    this.boxHeight = Math.max(1, boxHeight);
    if (wasFit || this.scale === undefined) this.fit();
    else this._keep();
  }

  /** Screen pixels for each pixel of the picture when all of it is seen. */
  get fitScale() {
    return Math.min(this.boxWidth / this.width, this.boxHeight / this.height);
  }

  get isFit() {
    return this.scale !== undefined && this.scale <= this.fitScale * 1.0001;
  }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.width - this.boxWidth / this.scale) / 2;
    this.y = (this.height - this.boxHeight / this.scale) / 2;
  }

  /** Zoom by a factor, with the point at a place of the screen staying there. */
  zoom(factor, screenX = this.boxWidth / 2, screenY = this.boxHeight / 2) {
    const [x, y] = this.toPicture(screenX, screenY);
    const most = Math.max(MOST, this.fitScale);
    this.scale = Math.min(most, Math.max(this.fitScale, this.scale * factor));
    this.x = x - screenX / this.scale;
    this.y = y - screenY / this.scale;
    this._keep();
  }

  /** Move by screen pixels. */
  move(dx, dy) {
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this._keep();
  }

  /** Show a place of the picture in the middle, at least at a scale. */
  show(x, y, scale = this.scale) {
    this.scale = Math.min(MOST, Math.max(this.fitScale, scale));
    this.x = x - this.boxWidth / this.scale / 2;
    this.y = y - this.boxHeight / this.scale / 2;
    this._keep();
  }

  toPicture(screenX, screenY) {
    return [this.x + screenX / this.scale, this.y + screenY / this.scale];
  }

  toScreen(x, y) {
    return [(x - this.x) * this.scale, (y - this.y) * this.scale];
  }

  /** Top, left, height and width of what is seen, in whole pixels of the picture. */
  area() {
    const left = Math.max(0, Math.floor(this.x));
    const top = Math.max(0, Math.floor(this.y));
    const right = Math.min(this.width, Math.ceil(this.x + this.boxWidth / this.scale));
    const bottom = Math.min(this.height, Math.ceil(this.y + this.boxHeight / this.scale));
    return [top, left, Math.max(1, bottom - top), Math.max(1, right - left)];
  }

  _keep() {
    this.x = within(this.x, this.width, this.boxWidth / this.scale);
    this.y = within(this.y, this.height, this.boxHeight / this.scale);
  }
}

/** A begin such that what is seen lies in the picture, or the picture in the middle of it. */
function within(begin, all, seen) {
  return seen >= all ? (all - seen) / 2 : Math.min(all - seen, Math.max(0, begin));
}
