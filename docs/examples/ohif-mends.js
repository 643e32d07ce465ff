// Two things that OHIF 3.13.2 does not do by itself, as an extension of its own kind: append it to app-config.js.
window.config.extensions.push({
  id: "radloop.mends",
  preRegistration({ servicesManager }) {
    const { metaData, VideoViewport } = window.cornerstone;

    // OHIF tells the VOI LUT Function (0028,1056) as a text, and its image loader takes the first of a list: of
    // "LINEAR" that is "L", which it refuses, and the image stays black.
    metaData.addProvider((type, imageId) => {
      const image = type === "voiLutModule" ? metaData.get("instance", imageId) : undefined;
      if (image?.VOILUTFunction == null || image.WindowCenter == null || image.WindowWidth == null) {
        return undefined;
      }
      return {
        windowCenter: [image.WindowCenter].flat().map(Number),
        windowWidth: [image.WindowWidth].flat().map(Number),
        voiLUTFunction: [image.VOILUTFunction].flat(),
      };
    }, 20000); // before OHIF's own

    // OHIF gives the address of a film to the browser, which asks for it without the token.
    const show = VideoViewport.prototype.setVideoURL;
    VideoViewport.prototype.setVideoURL = async function (address) {
      const token = servicesManager.services.userAuthenticationService.getAuthorizationHeader();
      const film = await fetch(address, { headers: { ...token, Accept: "video/*" } });
      return show.call(this, film.ok ? URL.createObjectURL(await film.blob()) : address);
    };
  },
});
